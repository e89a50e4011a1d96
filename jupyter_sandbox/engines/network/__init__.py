"""What every engine needs for a network that leads to the internet and to nothing nearer (design section 11)."""
