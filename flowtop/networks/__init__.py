"""AS and country of addresses, from databases on this host (MMDB files). Nothing is downloaded."""
