"""Everything that is generated from the catalog and the contracts; `make render` leaves no diff."""
