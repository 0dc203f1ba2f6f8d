"""What only several processes that train together can show, and what they must put together."""
