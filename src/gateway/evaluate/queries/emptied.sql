-- Nothing is counted.
truncate counted_at;
truncate units;
truncate facts;
truncate evidence;
truncate members;
truncate cells;
truncate groups;
truncate bins;
truncate notes;
