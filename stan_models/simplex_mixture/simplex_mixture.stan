// A mixture of K normals on the line; ordered means tell the components apart.
data {
  int<lower=1> N;
  int<lower=2> K;                          // components
  vector[N] y;
}
parameters {
  simplex[K] weights;
  ordered[K] mu;
  vector<lower=0>[K] sigma;
}
model {
  vector[K] log_weights = log(weights);
  weights ~ dirichlet(rep_vector(2, K));
  mu ~ normal(0, 5);
  sigma ~ lognormal(0, 0.5);
  for (n in 1:N) {
    vector[K] terms = log_weights;
    for (k in 1:K) {
      terms[k] += normal_lpdf(y[n] | mu[k], sigma[k]);
    }
    target += log_sum_exp(terms);
  }
}
