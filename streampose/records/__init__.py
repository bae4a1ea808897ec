"""What is done with recorded poses, without any network."""
