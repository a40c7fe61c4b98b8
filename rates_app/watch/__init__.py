"""What goes wrong with pods and Spark applications, turned into few notices, each with its all-clear."""
