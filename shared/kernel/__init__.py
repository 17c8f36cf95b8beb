"""Words that everything else is said with: ids, time, keys, errors."""
