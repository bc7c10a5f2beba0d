// A multivariate normal with unknown mean, scales and correlations.
data {
  int<lower=1> N;
  int<lower=2> K;                          // variables
  array[N] vector[K] y;
}
parameters {
  vector[K] mu;
  vector<lower=0>[K] sigma;
  cholesky_factor_corr[K] L;               // of the correlation matrix
}
model {
  mu ~ normal(0, 5);
  sigma ~ exponential(1);
  L ~ lkj_corr_cholesky(2);
  y ~ multi_normal_cholesky(mu, diag_pre_multiply(sigma, L));
}
generated quantities {
  matrix[K, K] Omega = multiply_lower_tri_self_transpose(L);
}
