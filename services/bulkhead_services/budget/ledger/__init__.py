"""The ledger: what is held and spent per account, its stores, its journal and its rebuild."""
