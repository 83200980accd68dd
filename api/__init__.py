"""Every way in (HTTP, command line) and the one place where parts are chosen."""
