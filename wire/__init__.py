"""What travels between clients, coordinator and agents: specs, frames and the connection they cross."""
