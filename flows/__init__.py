"""When things happen and in what order; the command line; the deployments."""
