"""Laws by subject, each `complain(record)`; oracle.py has the list. They share no code with the services."""
