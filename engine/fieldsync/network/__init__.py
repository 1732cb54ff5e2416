"""What runs in the background and on sockets: servers and hubs, dialling, discovery, and what is due when."""
