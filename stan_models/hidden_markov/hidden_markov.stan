// A hidden Markov model with normal emissions. The states are summed over by the forward
// algorithm: alpha[k] is the log density of what was seen so far with the chain in state k now.
data {
  int<lower=1> T;
  int<lower=2> K;
  vector[T] y;
}
parameters {
  array[K] simplex[K] transition;          // from each state, to each
  ordered[K] mu;
  vector<lower=0>[K] sigma;
}
model {
  matrix[K, K] log_transition;
  for (k in 1:K) {
    transition[k] ~ dirichlet(rep_vector(2, K));
    log_transition[k] = log(transition[k])';
  }
  mu ~ normal(0, 5);
  sigma ~ lognormal(0, 0.5);
  vector[K] alpha = rep_vector(-log(K), K);
  for (t in 1:T) {
    vector[K] before = alpha;
    for (k in 1:K) {
      if (t > 1) {
        alpha[k] = log_sum_exp(before + log_transition[:, k]);
      }
      alpha[k] += normal_lpdf(y[t] | mu[k], sigma[k]);
    }
  }
  target += log_sum_exp(alpha);
}
