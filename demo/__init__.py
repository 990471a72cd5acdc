"""How the demo checkpoint under ``server/models/demo`` was made: see ``demo/README.md``."""
