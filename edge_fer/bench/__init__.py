"""Bundles side by side on this machine: how long they take, what they weigh, which one to take."""
