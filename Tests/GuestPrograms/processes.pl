# Forks, pipes, signals and alarms.
use strict;
use warnings;
my $sum = 0;
for my $child (1 .. 40) {
    pipe my $from, my $to or die;
    my $pid = fork // die;
    if (!$pid) {
        close $from;
        my $n = 0;
        $n += $_ * $child for 1 .. 2000;
        print $to "$n\n";
        exit $child;
    }
    close $to;
    chomp(my $line = <$from>);
    waitpid $pid, 0;
    $sum += $line + ($? >> 8);
}
print "$sum\n";
my $seen = 0;
$SIG{USR1} = sub { $seen++ };
for (1 .. 500) { kill USR1 => $$; }
print "$seen\n";
my $rang = 0;
$SIG{ALRM} = sub { $rang = 1 };
alarm 1;
1 until $rang;
print "rang\n";
