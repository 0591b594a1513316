"""The consumer group of the coordinators: being a member, looking at it, and when an embedded coordinator joins."""
