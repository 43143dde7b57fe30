"""What the server measures about itself: metrics, prediction ids, and the labels that come back for them."""
