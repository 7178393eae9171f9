"""streamfold where its users already are: one file or folder for each library, an extra of the same
name, and an import of that library nowhere else."""
