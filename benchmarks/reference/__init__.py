"""What a first implementation of the documents' equations would look like."""
