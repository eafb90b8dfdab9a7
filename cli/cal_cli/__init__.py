"""calctl: the command line, and the local control plane behind `calctl up`."""
