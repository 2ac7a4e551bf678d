-- Files that were not counted yet, in the order of their numbers.
select n.name, n.path from new_files n order by name, path;
