from __future__ import annotations

from stompbridge.cli import main

if __name__ == "__main__":
    main()
