"""Demonstrations and environments, as files and as Lightning DataModules."""
