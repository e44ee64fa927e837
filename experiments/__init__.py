"""What shows that the library works: studies (figures), scores (tables) and speed, side by side with others."""
