"""The demo: 200 consultations through a storm, and an oracle that judges by what really happened."""
