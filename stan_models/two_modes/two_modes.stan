// Two normals of unit scales and unequal weights, far apart, as their own normalised density.
data {
  int<lower=1> D;
  real<lower=0> distance;                  // of the two means
  real<lower=0, upper=1> weight;           // of the first
}
transformed data {
  real m = distance / (2 * sqrt(D));       // the same in every coordinate
}
parameters {
  vector[D] x;
}
model {
  target += log_mix(weight, normal_lpdf(x | -m, 1), normal_lpdf(x | m, 1));
}
