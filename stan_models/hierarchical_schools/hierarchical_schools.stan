// Test scores of pupils in schools: intercept and slope vary by school, correlated, and are
// pooled towards a population mean. Non-centered.
data {
  int<lower=1> N;                          // pupils
  int<lower=1> J;                          // schools
  array[N] int<lower=1, upper=J> school;
  vector[N] x;                             // earlier score, standardised
  vector[N] y;                             // score, standardised
}
parameters {
  vector[2] mu;                            // intercept and slope of the average school
  vector<lower=0>[2] tau;                  // their standard deviations between schools
  cholesky_factor_corr[2] L;               // of their correlation
  matrix[2, J] eta;                        // schools, as standard normals
  real<lower=0> sigma;                     // standard deviation within a school
}
transformed parameters {
  matrix[2, J] beta = rep_matrix(mu, J) + diag_pre_multiply(tau, L) * eta;
}
model {
  mu ~ normal(0, 2);
  tau ~ exponential(1);
  L ~ lkj_corr_cholesky(2);
  to_vector(eta) ~ std_normal();
  sigma ~ exponential(1);
  y ~ normal(beta[1, school]' + beta[2, school]' .* x, sigma);
}
generated quantities {
  real rho = L[2, 1];                      // correlation of intercept and slope
}
