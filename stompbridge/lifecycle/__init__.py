"""How the process begins and ends beside others: the service manager, sockets that it passes, the drain."""
