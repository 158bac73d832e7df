# Regular expressions, hashes, sorting, formats and packing.
use strict;
use warnings;
my $state = 12345;
sub number { $state = ($state * 1103515245 + 12345) % 2147483648; return $state }
my (%count, @words);
for (1 .. 20000) {
    my $word = join '', map { chr(97 + number() % 26) } 1 .. 3 + number() % 6;
    push @words, $word;
    $count{$word}++;
}
my $text = join ' ', @words;
my %found;
$found{$1}++ while $text =~ /\b([aeiou]\w*?(?:st|nd|rd)\w*)\b/g;
print "$_ $found{$_}\n" for sort keys %found;
(my $swapped = $text) =~ s/(\w)(\w+)/$2$1/g;
print length($swapped), ' ', unpack('%32C*', $swapped), "\n";
print join(',', (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 50]), "\n";
print unpack('H*', pack('w/a C n N v V d< f> q', 'text', 200, 1, 2, 3, 4, 1 / 3, 0.1, -5)), "\n";
printf "%.15g %e %x %o %b %s\n", sqrt(2), 1e300 / 7, 255, 8, 5, 0x7fffffffffffffff;
my @matrix = map { [map { number() % 100 } 1 .. 30] } 1 .. 30;
my @product;
for my $i (0 .. 29) { for my $j (0 .. 29) { $product[$i][$j] += $matrix[$i][$_] * $matrix[$_][$j] for 0 .. 29 } }
print join(' ', map { $product[$_][29 - $_] } 0 .. 29), "\n";
