// Multivariate Student-t with equally correlated coordinates, as its own normalised density.
data {
  int<lower=1> n;                          // dimension
  real<lower=0> nu;                        // degrees of freedom
  real location;                           // of every coordinate
  real<lower=0, upper=1> rho;              // correlation of every pair
}
transformed data {
  vector[n] mu = rep_vector(location, n);
  matrix[n, n] L = cholesky_decompose(add_diag(rep_matrix(rho, n, n), 1 - rho));
}
parameters {
  vector[n] x;
}
model {
  target += multi_student_t_cholesky_lpdf(x | nu, mu, L);
}
