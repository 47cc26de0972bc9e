"""Run the local stack: servers, secrets, first keys and config, `ratchet doctor`."""
