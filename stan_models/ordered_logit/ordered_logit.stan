// Ordered logistic regression. The prior of the cutpoints, logistic draws in order, makes the
// probabilities of the K categories at X = 0 uniform on the simplex.
data {
  int<lower=1> N;
  int<lower=1> d;                          // covariates
  int<lower=2> K;                          // categories
  matrix[N, d] X;
  array[N] int<lower=1, upper=K> y;
}
parameters {
  vector[d] beta;
  ordered[K - 1] cutpoints;
}
model {
  beta ~ normal(0, 2);
  cutpoints ~ logistic(0, 1);
  y ~ ordered_logistic_glm(X, beta, cutpoints);
}
