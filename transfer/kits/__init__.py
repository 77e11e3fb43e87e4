"""The kit: what a host with nothing on it needs to become an appliance. Debian's Python, the wheels, this program, an engine's packages, an installer."""
