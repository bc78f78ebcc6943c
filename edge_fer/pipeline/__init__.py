"""From sources to results: reading, finding and recognising faces overlap, each in a thread of its own."""
