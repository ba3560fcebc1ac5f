"""What an evaluation reports, from all predicted and true sets of a split."""
