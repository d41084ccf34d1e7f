"""What the tests are built of: servers, the bridge as a process, and clients."""
