"""What goes wrong or changes underneath: clocks, outages, restarts, purges, upgrades."""
