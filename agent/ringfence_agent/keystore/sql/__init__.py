"""The key store in SQL tables: SQLite, PostgreSQL, MariaDB."""
