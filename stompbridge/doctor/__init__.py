"""Does the world fit the configuration? Named checks that try things for real, each finding with its remedy."""
