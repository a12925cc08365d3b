"""What people look at: pages, charts and pictures, with one look for all."""
