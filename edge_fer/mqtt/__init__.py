"""Results to an MQTT broker: its address, what waits for it, one connection, the thread that publishes."""
