"""The console: pages for those who look for people, review and watch the city, served by `urban-reid console`."""
