// Three normals of equal weight and unit scales in a row, as their own normalised density.
data {
  int<lower=1> D;
  real<lower=0> separation;                // distance of neighbouring means
}
transformed data {
  real m = separation / sqrt(D);           // the same in every coordinate
}
parameters {
  vector[D] x;
}
model {
  target += log_sum_exp({normal_lpdf(x | -m, 1), normal_lpdf(x | 0, 1), normal_lpdf(x | m, 1)})
            - log(3);
}
