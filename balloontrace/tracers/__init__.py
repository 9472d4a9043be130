"""Everything that runs inside the guest: standard library, BCC and pyroute2 only."""
