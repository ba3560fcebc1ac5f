"""What evaluations report: of a split as a whole, or one value per sample, as losses do."""
