"""What the mesh is compared with: bare JetStream, and DBOS over PostgreSQL."""
