"""Watch pods and Spark applications, and send a notification when a problem starts and when it ends."""
