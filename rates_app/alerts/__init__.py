"""Lane alerts: notices to consumers when the latest rate of a lane meets their condition."""
